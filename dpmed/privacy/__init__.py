"""The plan, sampling, clipping, noise, accounting and ledger; independent of data and models."""
