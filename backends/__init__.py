"""What turns clips into logits, and what exports: the network, Paddle Inference, ONNX Runtime."""
