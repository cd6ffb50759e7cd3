"""One reader a release, each from its own files to the study table, and what they share."""
