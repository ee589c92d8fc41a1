"""A model behind OpenAI's completions API, and a page to talk to it."""
