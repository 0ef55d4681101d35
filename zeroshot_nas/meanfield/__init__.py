"""What random networks do on average, in closed form from their operations. No torch here."""
