"""Predictions to files, then discrimination, calibration and fairness from files alone."""
