"""Lightning module, callbacks, checkpoints and export; no privacy mathematics."""
