"""One file a stage: each turns its part of the configuration into calls of one folder."""
