"""Images in, tensors out: sources of images, data sets with a manifest, and disjoint subsets of them."""
