//! What the layer leaves of a server's requests per second: `cargo bench --bench end_to_end`.
//!
//! Two servers on loopback sockets, one with the layer and one without, are loaded in turns of a second:
//! with, without, without, with. Each four seconds give one ratio of rates, and one of the time on a
//! processor that a request takes. Both are sent the token.
//!
//! The load comes from `oha` (`cargo install oha`), and the servers have tokio's ordinary runtime: it and
//! they share the processors, as clients and servers on two machines would have one each. With
//! `BENCH_LOAD=wrk` it comes from `wrk`, which costs little, and the servers have one thread that is never
//! idle: nothing but the server's own time counts then.
//!
//! It takes two minutes; `BENCH_QUICK=1` makes one ratio of it.

mod support;

use std::{env, fs, io, process::Command};

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
    let generator = Generator::asked_for()?;
    // Both servers are on it, and one of them always waits.
    let mut server = runtime::Builder::new_multi_thread();
    if generator == Generator::Wrk {
        server.worker_threads(1);
    }
    let server = server.enable_all().build()?;
    let (with, without, token) = server.block_on(serve())?;
    let quads = sized(30, 1);
    let mut seconds = [Vec::new(), Vec::new()];
    let mut ratios = [Vec::new(), Vec::new()];
    for address in [&with, &without] {
        generator.load(address, &token)?;
    }
    for _ in 0..quads {
        let first = generator.load(&with, &token)?;
        let second = generator.load(&without, &token)?;
        let third = generator.load(&without, &token)?;
        let fourth = generator.load(&with, &token)?;
        ratios[0].push((first.rate + fourth.rate) / (second.rate + third.rate));
        ratios[1].push((first.cpu + fourth.cpu) / (second.cpu + third.cpu));
        seconds[0].extend([first, fourth]);
        seconds[1].extend([second, third]);
    }

    println!(
        "\n{generator:?} over {CONNECTIONS} connections; medians of {} seconds each",
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

/// What a second of load has shown.
struct Second {
    /// Requests a second.
    rate: f64,
    /// The nanoseconds of a processor that this process, the server, took for each. Other programs
    /// change it less than the rate.
    cpu: f64,
}

/// What makes the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generator {
    Oha,
    Wrk,
}

impl Generator {
    /// The one that is asked for, if it is installed.
    fn asked_for() -> Outcome<Self> {
        let (generator, program, install) = match env::var("BENCH_LOAD").as_deref() {
            Ok("wrk") => (Self::Wrk, "wrk", "apt-get install wrk"),
            Ok("oha") | Err(_) => (Self::Oha, "oha", "cargo install oha"),
            Ok(other) => return Err(format!("BENCH_LOAD is `oha` or `wrk`, not {other:?}").into()),
        };
        match Command::new(program).arg("--version").output() {
            Ok(_) => Ok(generator),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("this needs {program} to make the requests: `{install}`").into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn load(self, url: &str, token: &ApiKeyToken) -> Outcome<Second> {
        let header = format!("Authorization: Bearer {}", token.expose());
        let connections = CONNECTIONS.to_string();
        let mut command = match self {
            Self::Oha => Command::new("oha"),
            Self::Wrk => Command::new("wrk"),
        };
        command.args(["-c", &connections, "-H", &header]);
        match self {
            Self::Oha => command.args(["-z", "1s", "--no-tui", "--output-format", "json", url]),
            Self::Wrk => command.args(["--threads=1", "--duration=1s", url]),
        };
        let before = cpu_time()?;
        let output = command.output()?;
        let cpu_time = cpu_time()? - before;
        let said = String::from_utf8(output.stdout)?;
        let measured = match self {
            Self::Oha => of_oha(&said),
            Self::Wrk => of_wrk(&said),
        };
        match measured {
            Some((rate, count)) if output.status.success() => Ok(Second {
                rate,
                cpu: cpu_time / count,
            }),
            _ => Err(format!("{self:?} has not measured: {said}").into()),
        }
    }
}

/// Requests a second, and requests, if all of them were answered 200.
fn of_oha(said: &str) -> Option<(f64, f64)> {
    let said: serde_json::Value = serde_json::from_str(said).ok()?;
    let statuses = said["statusCodeDistribution"].as_object()?;
    let count = statuses.get("200").filter(|_| statuses.len() == 1)?;
    Some((said["summary"]["requestsPerSec"].as_f64()?, count.as_f64()?))
}

/// The same. It complains of what failed.
fn of_wrk(said: &str) -> Option<(f64, f64)> {
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        return None;
    }
    let mut lines = said.lines();
    let count = lines.find_map(|line| line.split_once(" requests in "))?.0;
    let rate = lines.find_map(|line| line.strip_prefix("Requests/sec:"))?;
    Some((rate.trim().parse().ok()?, count.trim().parse().ok()?))
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
