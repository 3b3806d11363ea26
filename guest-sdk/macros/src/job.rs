//! `#[tidemill::job]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, Result};

pub(crate) fn expand(args: &TokenStream, function: &ItemFn) -> Result<TokenStream> {
    if !args.is_empty() {
        return Err(Error::new_spanned(
            args,
            "`#[tidemill::job]` takes no arguments",
        ));
    }
    let signature = &function.sig;
    if signature.asyncness.is_some() || signature.inputs.len() != 2 {
        let message = "a job is `fn(env: &Env, args: &Args) -> tidemill::Result<()>`";
        return Err(Error::new_spanned(signature, message));
    }
    let ident = &signature.ident;
    let name = ident.to_string().replace('_', "-");
    Ok(quote! {
        #function

        // Natively only tests call it; it is no dead code for that.
        #[cfg(not(target_family = "wasm"))]
        const _: ::tidemill::rt::JobFunction = #ident;

        #[cfg(target_family = "wasm")]
        #[doc(hidden)]
        mod __tidemill_component {
            struct TheJob;

            impl ::tidemill::rt::Job for TheJob {
                const NAME: &'static str = #name;
                const FUNCTION: ::tidemill::rt::JobFunction = super::#ident;
            }

            type Exports = ::tidemill::rt::Exported<TheJob>;

            #[allow(unsafe_code, unused_qualifications, reason = "generated code")]
            mod exports {
                use super::Exports;
                ::tidemill::bindings::export_component!(Exports with_types_in ::tidemill::bindings);
            }
        }
    })
}
