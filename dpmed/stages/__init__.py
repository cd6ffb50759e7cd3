"""One file a stage: each turns its part of the configuration into calls of the folder that does the work."""
