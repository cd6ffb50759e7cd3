"""Volumes: NIfTI files, DICOM series and MedMNIST files, turned, resampled and resized by MONAI."""
