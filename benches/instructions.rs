//! The program that `instructions.py` counts the instructions of; see there.
//!
//! `instructions <variant> <count>` says `ready`, waits for a line, has `count` requests answered by
//! one variant, and ends. `instructions list` names the variants.

mod support;

use std::{
    env,
    hint::black_box,
    io::{self, BufRead},
    process,
};

use axum::Router;
use support::{
    Outcome,
    routers::{self, Variant},
};
use tokio::runtime;
use tower::ServiceExt;
use tower_api_key::ApiKeyToken;

/// By when everything is loaded, and no hash table grows any more.
const WARM_UP: usize = 300;

fn main() -> Outcome {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let (variants, token) = routers::variants().await?;
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["list"] => {
                for Variant { slug, name, .. } in variants {
                    println!("{slug}\t{name}");
                }
                Ok(())
            }
            [slug, count] if !slug.starts_with('-') => {
                let variant = variants.iter().find(|variant| variant.slug == slug);
                let app = &variant.ok_or("no such variant")?.app;
                counted(app, &token, count.parse()?).await
            }
            // `cargo bench` and test runners.
            _ => {
                println!("to be run by benches/instructions.py");
                Ok(())
            }
        }
    })
}

async fn counted(app: &Router, token: &ApiKeyToken, count: usize) -> Outcome {
    answer(app, token, WARM_UP, || Ok(())).await?;
    answer(app, token, count, || {
        println!("ready");
        io::stdin().lock().read_line(&mut String::new())?;
        Ok(())
    })
    .await?;
    // Nothing is torn down: that would be counted too.
    process::exit(0)
}

/// Calls `built` between the building of the requests and the first answer.
async fn answer(
    app: &Router,
    token: &ApiKeyToken,
    count: usize,
    built: impl FnOnce() -> io::Result<()>,
) -> Outcome {
    let requests: Outcome<Vec<_>> = (0..count).map(|_| routers::request(token)).collect();
    let requests = requests?;
    built()?;
    for request in requests {
        black_box(app.clone().oneshot(request).await?);
    }
    Ok(())
}
