"""Memory on microcontrollers: operators as their interpreter runs them, the order that needs least, boards."""
