"""Diffusion transformers: training them on the images that were kept, fine-tuning, sampling.

Importing this package imports no torch; its modules do.
"""
