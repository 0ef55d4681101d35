"""What came of runs as pictures in files, and the figures behind them."""
