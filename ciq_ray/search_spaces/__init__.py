"""Search spaces: of plain parameters (`base`) and of compilers' options (`compilers`)."""
