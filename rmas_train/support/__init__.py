"""What every room uses: files, log, parsing, redaction, resources."""
