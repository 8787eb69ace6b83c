"""What a good document is: signals of a text, rules over signals, edits of a text. No I/O, no clock, no randomness."""
