"""dpmed: train and evaluate medical image classifiers under differential privacy."""

__version__ = "0.1.0"
