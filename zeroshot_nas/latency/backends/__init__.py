"""Inference engines that latency is measured on."""
