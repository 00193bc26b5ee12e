"""Video clips in, uint8 arrays out: lists, sampling, decoding, transforms, the dataset and its loader."""
