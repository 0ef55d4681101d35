"""Upper bounds on what a space can reach within a budget, and the proof that a network reaches them. No torch here."""
