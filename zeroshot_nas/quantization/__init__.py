"""Networks in whole numbers: the rules of int8, which the exported file and training with rounded values share."""
