"""Many chains of blocks at once, as arrays: how they are written, their convolutions and their costs. No torch here."""
