"""Scripts that compare the speed of this project with its peers; not in the package."""
