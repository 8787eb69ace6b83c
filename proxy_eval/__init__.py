"""How a corpus is judged: small Llamas trained on a fixed token budget, one arm for each filter rule."""
