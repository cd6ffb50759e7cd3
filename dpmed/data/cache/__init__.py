"""The array cache: every image decoded once into one memory-mapped uint8 array, with an index."""
