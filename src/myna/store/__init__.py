"""Other stores (s3://, gs://, any that fsspec knows): their addresses, what is fetched from them, and where it lies."""
