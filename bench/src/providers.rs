//! Other providers than the bench's own: nginx, and one that is far away.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::mock::{Mock, SMALL_BYTES};
use crate::process::Running;
use crate::time::{now, sleep};
use crate::{Outcome, certificate, folder};

/// The longest time until one serves.
const START_MAX: Duration = Duration::from_secs(10);

/// nginx as a provider: it returns 1 KB, whatever it is asked.
pub(crate) fn nginx() -> Outcome<Mock> {
    let folder = folder::scratch()?.join("provider-nginx");
    std::fs::create_dir_all(&folder)?;
    let issued = certificate::issue()?;
    std::fs::write(folder.join("certificate.pem"), issued.certificate.pem())?;
    std::fs::write(folder.join("key.pem"), issued.key.serialize_pem())?;
    let (plain, tls) = (free()?, free()?);
    let answer = "y".repeat(SMALL_BYTES);
    let text = format!(
        "worker_processes 2; daemon off; error_log stderr; pid {0}/pid;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; default_type application/json;
  client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u;
  scgi_temp_path {0}/s;
  server {{
    listen {plain} backlog=4096; listen {tls} ssl backlog=4096;
    ssl_certificate {0}/certificate.pem; ssl_certificate_key {0}/key.pem;
    location / {{ return 200 \"{answer}\"; }}
  }}
}}
",
        folder.display()
    );
    let file = folder.join("config");
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    let running = Running::start("provider-nginx", Command::new("nginx"), &["-c", &file])?;
    wait_for(plain)?;
    Mock::of(plain, tls, vec![running])
}

/// The same provider, so many milliseconds away in each direction.
pub(crate) fn far(provider: &Mock, milliseconds: u64) -> Outcome<Mock> {
    let (mut addresses, mut running) = (Vec::new(), Vec::new());
    for (name, to) in [("delay-plain", provider.plain), ("delay-tls", provider.tls)] {
        let at = free()?;
        let arguments = ["delay", &at.to_string(), &to.to_string(), &milliseconds.to_string()];
        running.push(Running::start(name, Command::new(std::env::current_exe()?), &arguments)?);
        wait_for(at)?;
        addresses.push(at);
    }
    Mock::of(addresses[0], addresses[1], running)
}

/// An address that was free a moment ago.
fn free() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn wait_for(address: SocketAddr) -> Outcome<()> {
    let begun = now();
    while TcpStream::connect(address).is_err() {
        if begun.elapsed() > START_MAX {
            return Err(format!("nothing serves {address}; the logs are in target/bench").into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
