"""Networks trained by one recipe and set side by side: what was found, and what is made by hand."""
