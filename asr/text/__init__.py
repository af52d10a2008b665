"""Words to what people read: results, numerals, subtitles and transcripts; and text back to spoken words."""
