//! What the layer leaves of a server's requests per second: `cargo bench --bench end_to_end`.
//!
//! Two servers on loopback sockets, one with the layer and one without, are loaded by `wrk` in turns
//! of a second: with, without, without, with. Each four seconds give one ratio of rates, and one of
//! the time on a processor that a request takes. A server has one thread, and so has `wrk`, which
//! sends the token to both. It takes two minutes; `BENCH_QUICK=1` makes one ratio of it.

mod support;

use std::{fs, io, process::Command};

use axum::Router;
use http::StatusCode;
use support::{
    Outcome, is_asked,
    rounds::Spread,
    routers::{bare, checked, new_key},
    sized,
};
use tokio::{net::TcpListener, runtime};
use tower_api_key::{ApiKeyLayer, ApiKeyStore, ApiKeyToken};

const CONNECTIONS: u8 = 32;

fn main() -> Outcome {
    if !is_asked() {
        return Ok(());
    }
    has_wrk()?;
    // Both servers are on its one thread, and one of them always waits.
    let server = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (with, without, token) = server.block_on(serve())?;
    let quads = sized(30, 1);
    let mut seconds = [Vec::new(), Vec::new()];
    let mut ratios = [Vec::new(), Vec::new()];
    for address in [&with, &without] {
        load(address, &token)?;
    }
    for _ in 0..quads {
        let first = load(&with, &token)?;
        let second = load(&without, &token)?;
        let third = load(&without, &token)?;
        let fourth = load(&with, &token)?;
        ratios[0].push((first.rate + fourth.rate) / (second.rate + third.rate));
        ratios[1].push((first.cpu + fourth.cpu) / (second.cpu + third.cpu));
        seconds[0].extend([first, fourth]);
        seconds[1].extend([second, third]);
    }

    println!(
        "\nover {CONNECTIONS} connections; medians of {} seconds each",
        2 * quads
    );
    println!("{:<30} {:>12} {:>16}", "", "requests/s", "CPU ns/request");
    for (name, seconds) in ["with the layer", "without"].into_iter().zip(seconds) {
        let rate = Spread::of(seconds.iter().map(|second| second.rate)).median;
        let cpu = Spread::of(seconds.iter().map(|second| second.cpu)).median;
        println!("{name:<30} {rate:>12.0} {cpu:>16.0}");
    }
    let names = [
        "with to without, requests/s",
        "with to without, CPU/request",
    ];
    for (name, ratios) in names.into_iter().zip(ratios) {
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let Spread { quartiles, median } = Spread::of(ratios.into_iter());
        let [low, high] = quartiles;
        println!(
            "{name:<30} {median:>12.3}   half of them {low:.3} to {high:.3}, all {least:.3} to {most:.3}"
        );
    }
    Ok(())
}

/// The addresses of the server with the layer, and of the one without.
async fn serve() -> Outcome<(String, String, ApiKeyToken)> {
    let store = ApiKeyStore::in_memory();
    let token = store.create(new_key()?).await?.token().clone();
    let guarded = bare().route_layer(ApiKeyLayer::new(store));
    let guarded = checked("the layer", guarded, &token, StatusCode::UNAUTHORIZED).await?;
    Ok((listen(guarded).await?, listen(bare()).await?, token))
}

async fn listen(app: Router) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(format!("http://{address}/"))
}

fn has_wrk() -> Outcome {
    match Command::new("wrk").arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("this needs wrk to make the requests: `apt-get install wrk`".into())
        }
        Err(error) => Err(error.into()),
    }
}

/// What a second of load has shown.
struct Second {
    /// Requests a second.
    rate: f64,
    /// The nanoseconds of a processor that this process, the server, took for each. Other programs
    /// change it less than the rate.
    cpu: f64,
}

fn load(url: &str, token: &ApiKeyToken) -> Outcome<Second> {
    let header = format!("Authorization: Bearer {}", token.expose());
    let mut wrk = Command::new("wrk");
    wrk.arg(format!("--connections={CONNECTIONS}"));
    wrk.args(["--threads=1", "--duration=1s", "--header", &header, url]);
    let before = cpu_time()?;
    let output = wrk.output()?;
    let cpu_time = cpu_time()? - before;

    let said = String::from_utf8(output.stdout)?;
    let failed = ["Non-2xx", "Socket errors"]
        .iter()
        .any(|complaint| said.contains(complaint));
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    let count = said
        .lines()
        .find_map(|line| line.split_once(" requests in "));
    match (rate, count) {
        (Some(rate), Some((count, _))) if output.status.success() && !failed => Ok(Second {
            rate: rate.trim().parse()?,
            cpu: cpu_time / count.trim().parse::<f64>()?,
        }),
        _ => Err(format!("wrk has not measured: {said}").into()),
    }
}

/// The nanoseconds of a processor that the threads of this process have taken.
fn cpu_time() -> Outcome<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir("/proc/self/task")? {
        let times = fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = times.split(' ').next().ok_or("an empty schedstat")?;
        sum += on_cpu.parse::<f64>()?;
    }
    Ok(sum)
}
