"""Raw text to token ids: byte-pair encoding and the tokenizers made with it."""
