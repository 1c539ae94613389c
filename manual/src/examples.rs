//! Examples for the manual pages: command lines, each with its effect.

/// By command: `evertoken` itself and each of its subcommands.
pub(crate) const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "evertoken",
        &[
            ("evertoken", "Runs with ./providers.yaml in the foreground."),
            (
                "evertoken --config /etc/evertoken/providers.yaml --listen 127.0.0.1:9000",
                "Runs with another configuration on another port.",
            ),
        ],
    ),
    (
        "run",
        &[
            (
                "evertoken run --config /etc/evertoken/providers.yaml",
                "Runs in the foreground, as service managers expect.",
            ),
            (
                "evertoken run --environment-file evertoken.env --log-format json",
                "Reads client ids and secrets from a file, and logs one JSON object per line.",
            ),
        ],
    ),
    (
        "check",
        &[
            ("evertoken check", "Prints every mistake in ./providers.yaml with its place."),
            (
                "evertoken check --online --config /etc/evertoken/providers.yaml",
                "Also connects to every endpoint. As root, it uses the service's variables.",
            ),
            (
                "evertoken check --start --config /etc/evertoken/providers.yaml && systemctl restart evertoken",
                "Restarts evertoken only if it will start again.",
            ),
        ],
    ),
    (
        "reload",
        &[
            (
                "evertoken reload --config /etc/evertoken/providers.yaml",
                "Makes the running evertoken use the changed file, if the file has no mistakes.",
            ),
            ("evertoken reload --pid 4711", "The same for the process with this id."),
        ],
    ),
    (
        "refresh",
        &[
            (
                "evertoken refresh",
                "Refreshes the tokens of all enabled providers, and stores them.",
            ),
            (
                "evertoken refresh --provider work",
                "Refreshes the token of the provider whose slug is work.",
            ),
        ],
    ),
    (
        "login",
        &[
            (
                "evertoken login --provider work",
                "Opens a browser, and stores the refresh token that the issuer returns.",
            ),
            (
                "evertoken login --config /etc/evertoken/providers.yaml --provider work --paste",
                "On a server, as root, for the service: with a browser on any machine.",
            ),
            (
                "evertoken login --provider work --device",
                "Shows a code to type into a browser anywhere.",
            ),
            (
                "evertoken login --discover https://mcp.example.com/mcp --write providers.yaml",
                "Finds out how to log in to an MCP server, logs in, and adds it to the file.",
            ),
        ],
    ),
    (
        "logout",
        &[(
            "evertoken logout --provider work",
            "Revokes the provider's tokens, and deletes them; a running evertoken drops them.",
        )],
    ),
    (
        "token",
        &[
            (
                "evertoken token --provider work",
                "Prints a valid access token, refreshed first only if it is about to end.",
            ),
            (
                "evertoken token --config /home/me/providers.yaml --format exec-credential",
                "For kubectl, in the exec section of a user.",
            ),
        ],
    ),
    (
        "exec",
        &[(
            "evertoken exec --provider work --env OPENAI_API_KEY -- python script.py",
            "Runs the script with an access token in the variable OPENAI_API_KEY.",
        )],
    ),
    (
        "key",
        &[(
            "evertoken key ci",
            "Prints a new key for a client, and its entry in settings.auth.keys.",
        )],
    ),
    (
        "usage",
        &[
            (
                "evertoken usage --by key",
                "Prints the tokens of the last 30 days for each key of clients.",
            ),
            (
                "evertoken usage --since 2026-11-01 --csv",
                "Prints those since 1 November by provider, model and key, for a spreadsheet.",
            ),
        ],
    ),
    (
        "status",
        &[
            (
                "evertoken status",
                "Asks the instance at the address in ./providers.yaml, else at 127.0.0.1:8080.",
            ),
            ("evertoken status --watch", "Repeats the status every two seconds."),
            (
                "evertoken status --quiet --url http://127.0.0.1:9000",
                "For a health check: exits with 0 if every enabled provider is ready.",
            ),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use evertoken::testing::{Command, command_line, parse_arguments};

    use super::*;

    #[test]
    fn every_command_has_examples_that_mean_what_they_say() {
        let mut names = vec!["evertoken".to_owned()];
        names.extend(command_line().get_subcommands().map(|one| one.get_name().to_owned()));
        for name in names {
            let examples =
                EXAMPLES.iter().find(|(own, _)| *own == name).map(|(_, examples)| *examples);
            for (line, _) in examples.unwrap_or_else(|| panic!("{name} has no examples")) {
                let own = line.split(" && ").next().unwrap();
                let words: Vec<_> = own.split_whitespace().collect();
                assert_eq!(words[0], "evertoken", "{line}");
                assert!(name == "evertoken" || words[1] == name, "{line} is an example for {name}");
                let parsed = parse_arguments(words[1..].iter().map(Into::into));
                assert!(!matches!(parsed, Err(_) | Ok(Command::Print(_))), "{line}: {parsed:?}");
            }
        }
    }
}
