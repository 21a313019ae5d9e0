"""nash-search: the best version of your encoder-decoder model that measurably meets a latency budget."""
