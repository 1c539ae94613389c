//! Shell completions from the definition of the command line; `--provider` completes the configured slugs.

use clap_complete::{Shell, generate};
use evertoken::testing::command_line;

/// The shells, and the names of their files.
pub(crate) const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "evertoken.bash"), (Shell::Zsh, "_evertoken"), (Shell::Fish, "evertoken.fish")];

const BASH: &str = r#"
# The slugs of the configuration that the line names.
_evertoken_providers() {
    local config=providers.yaml i next
    for ((i = 1; i < COMP_CWORD; i++)); do
        next=${COMP_WORDS[i + 1]}
        [[ $next != = ]] || next=${COMP_WORDS[i + 2]}
        case ${COMP_WORDS[i]} in
            -c | --config) config=$next ;;
        esac
    done
    "${COMP_WORDS[0]}" check --names --config "${config/#\~/$HOME}" 2> /dev/null
}
"#;

const ZSH: &str = r#"
# The slugs of the configuration that the line names.
_evertoken_providers() {
    # The line without what `_arguments` has taken out of $words.
    local -a line names
    local config=providers.yaml i
    line=(${(z)BUFFER})
    for ((i = 1; i <= $#line; i++)); do
        case $line[i] in
            -c | --config) config=$line[i+1] ;;
            --config=*) config=${line[i]#--config=} ;;
        esac
    done
    config=${(Q)config}
    names=(${(f)"$(evertoken check --names --config "${config/#\~/$HOME}" 2> /dev/null)"})
    compadd -a names
}
"#;

const FISH: &str = r"
# The slugs of the configuration that the line names.
function __evertoken_providers
    set -l config providers.yaml
    set -l words (commandline -opc)
    for i in (seq (count $words))
        switch $words[$i]
            case -c --config
                if test $i -lt (count $words)
                    set config $words[(math $i + 1)]
                end
            case '--config=*'
                set config (string replace -- --config= '' $words[$i])
        end
    end
    evertoken check --names --config (string replace -r '^~' $HOME -- $config) 2> /dev/null
end
";

/// The completions for a shell.
pub(crate) fn of(shell: Shell) -> String {
    let mut out = Vec::new();
    generate(shell, &mut command_line(), "evertoken", &mut out);
    let text = String::from_utf8_lossy(&out).into_owned();
    // Options for these scripts are not offered; each shell writes that in its own way.
    let offered =
        text.lines().filter(|line| !line.contains("--names[") && !line.contains(" -l names"));
    let text = offered
        .map(|line| line.replace(" --names", "").replace("(--names ", "(") + "\n")
        .collect::<String>();
    match shell {
        Shell::Bash => BASH.trim_start().to_owned() + &bash(&text),
        Shell::Zsh => zsh(&text),
        _ => text.lines().map(fish).collect::<String>() + FISH,
    }
}

/// Files are offered for every value, but slugs after `--provider`.
fn bash(text: &str) -> String {
    let mut is_provider = false;
    let line = |line: &str| {
        let option = line.trim();
        if option.ends_with(')') && option.starts_with('-') {
            is_provider = matches!(option, "--provider)" | "-p)");
        }
        let files = r#"COMPREPLY=($(compgen -f "${cur}"))"#;
        let slugs = r#"COMPREPLY=($(compgen -W "$(_evertoken_providers)" -- "${cur}"))"#;
        if is_provider { line.replace(files, slugs) + "\n" } else { format!("{line}\n") }
    };
    text.lines().map(line).collect()
}

/// The functions come before the line that runs the first of them.
fn zsh(text: &str) -> String {
    let line = |line: &str| {
        let is_provider = line.contains("--provider=[") || line.contains("-p+[");
        let slugs = if is_provider { ":NAME:_evertoken_providers" } else { ":NAME:_default" };
        line.replace(":NAME:_default", slugs) + "\n"
    };
    let text: String = text.lines().map(line).collect();
    let start = "if [ \"$funcstack[1]\"";
    match text.split_once(start) {
        Some((functions, end)) => format!("{functions}{}\n{start}{end}", ZSH.trim_start()),
        None => text,
    }
}

fn fish(line: &str) -> String {
    let more = if line.contains(" -l provider ") { " -f -a '(__evertoken_providers)'" } else { "" };
    format!("{line}{more}\n")
}
