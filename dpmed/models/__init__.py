"""Backbones, heads and initialisation with provenance; nothing here knows about privacy."""
