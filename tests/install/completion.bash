#!/bin/bash
# Sources the completion for bash and asks it what comes next, as bash does on TAB.
set -eu
bash -n "$1"
# shellcheck source=/dev/null
source "$1"

# offers LINE: what is offered for the last word of LINE.
offers() {
    read -ra COMP_WORDS <<< "$1"
    case $1 in
        *' ') COMP_WORDS+=("") ;;
    esac
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    _evertoken evertoken "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
}

expect() {
    local offered
    offered=$(offers "$1")
    if [[ " $offered " != *" $2 "* ]]; then
        echo "for '$1' bash is offered '$offered', without $2" >&2
        exit 1
    fi
}

complete -p evertoken > /dev/null
expect "evertoken ch" check
expect "evertoken re" refresh
expect "evertoken check --on" --online
expect "evertoken run --log-format " json
expect "evertoken refresh --pro" --provider

# What the configuration names is asked of the program itself; where $1 is none, nothing is offered.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PATH=$2:$PATH
cat > "$folder/providers.yaml" << 'END'
providers:
  - {name: First one, type: generic, base_url: "http://127.0.0.1:9", auth_type: none}
  - {name: Second, type: generic, base_url: "http://127.0.0.1:9", auth_type: none}
END
expect "evertoken refresh --config $folder/providers.yaml --provider " first-one
expect "evertoken login -c $folder/providers.yaml -p s" second
cd "$folder"
expect "evertoken login --provider f" first-one
