"""Finding the same picture twice: descriptors, neighbours and registration of image pairs."""
