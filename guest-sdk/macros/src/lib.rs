//! The macros of the crate `tidemill`, where they are documented and exported from.

mod job;
mod schema;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes a function the description of a job, and its crate a component.
///
/// The function takes `(&Env, &Args)` and returns `tidemill::Result<()>`. It stays an ordinary
/// function, so that tests can run the job; on other targets than Wasm nothing else is generated.
#[proc_macro_attribute]
pub fn job(args: TokenStream, item: TokenStream) -> TokenStream {
    let args = proc_macro2::TokenStream::from(args);
    let function = parse_macro_input!(item as syn::ItemFn);
    job::expand(&args, &function)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Derives the Avro schema of a struct or enum, by which it can be kept in state.
#[proc_macro_derive(Schema, attributes(serde))]
pub fn schema(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    schema::expand(&item)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
