"""Zero-shot NAS."""
