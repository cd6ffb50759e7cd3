"""Study tables, readers, synthetic radiographs, splits, decoding and the image store."""
