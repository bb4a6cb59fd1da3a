"""How good masks are: metrics per case and class, and what follows from them."""
