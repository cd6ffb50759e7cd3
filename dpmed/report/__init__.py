"""Tables, plots, the self-contained page and sweep collection; works from files, without torch."""
