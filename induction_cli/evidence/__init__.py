"""One room per command: run(config, out_dir) -> headline number."""
