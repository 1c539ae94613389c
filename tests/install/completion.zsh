#!/usr/bin/env zsh
# Types into a zsh with the completions of folder $1, the program being in folder $2, and expects what TAB brings.
zmodload zsh/zpty || exit 1
folder=$(mktemp -d)
trap 'rm -rf $folder' EXIT
cat > $folder/providers.yaml << 'END'
providers:
  - {name: First one, type: generic, base_url: "http://127.0.0.1:9", auth_type: none}
END
zpty shell zsh -f -i
zpty -w shell "PATH=$2:\$PATH; fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; bindkey '^I' complete-word; echo is-read''y"
zpty -r -m shell seen '*is-ready*' || exit 1
zpty -w -n shell "evertoken refresh --config $folder/providers.yaml --provider "$'\t'
zpty -r -m shell seen '*--provider first-one*' || exit 1
zpty -d shell
