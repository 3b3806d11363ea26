//! `#[derive(Schema)]`: the schema follows what serde's derive writes.

use proc_macro2::TokenStream;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{Attribute, Data, DeriveInput, Error, Fields, LitStr, Meta, Result, Token};

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let ident = &item.ident;
    let name = ident.to_string();
    refuse_misplacing(&item.attrs)?;
    let body = match &item.data {
        Data::Struct(data) => record(&data.fields)?,
        Data::Enum(data)
            if data
                .variants
                .iter()
                .all(|v| matches!(v.fields, Fields::Unit)) =>
        {
            let symbols = data
                .variants
                .iter()
                .map(|v| Ok(renamed(&v.attrs)?.unwrap_or_else(|| v.ident.to_string())));
            let symbols = symbols.collect::<Result<Vec<_>>>()?;
            quote! { known.symbols(name, &[#(#symbols),*]) }
        }
        // A record around the union, which is written no differently: a union may not be in another
        // one, as that of an option.
        Data::Enum(data) => {
            let branches = data.variants.iter().map(|variant| {
                let branch = format!("{name}_{}", variant.ident);
                let record = fields_of(&variant.fields)?;
                Ok(quote! { { let name = #branch; #record } })
            });
            let branches = branches.collect::<Result<Vec<_>>>()?;
            quote! {
                let branches: [::std::string::String; _] = [#(#branches),*];
                known.union(name, &branches)
            }
        }
        Data::Union(_) => return Err(Error::new_spanned(item, "a union has no schema")),
    };
    let mut generics = item.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(syn::parse_quote!(::tidemill::Schema));
    }
    let (implemented, types, conditions) = generics.split_for_impl();
    // A generic type is another one for each argument.
    let method = if item.generics.type_params().next().is_some() {
        quote! { generic }
    } else {
        quote! { named }
    };
    let whole = quote! { known.#method(#name, |known, name| { #body }) };
    Ok(quote! {
        #[automatically_derived]
        impl #implemented ::tidemill::Schema for #ident #types #conditions {
            fn schema(known: &mut ::tidemill::Definitions) -> ::std::string::String {
                #whole
            }
        }
    })
}

/// The schema of a struct's or a variant's fields.
fn record(fields: &Fields) -> Result<TokenStream> {
    // serde writes a struct around one unnamed field as that field alone.
    if let Fields::Unnamed(unnamed) = fields
        && unnamed.unnamed.len() == 1
    {
        let of = &unnamed.unnamed[0].ty;
        return Ok(quote! { { let _ = name; <#of as ::tidemill::Schema>::schema(known) } });
    }
    fields_of(fields)
}

/// The fields as a record, whatever their number.
fn fields_of(fields: &Fields) -> Result<TokenStream> {
    let mut parts = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        refuse_misplacing(&field.attrs)?;
        if has(&field.attrs, "skip")? {
            continue;
        }
        let own = field
            .ident
            .as_ref()
            .map_or_else(|| format!("f{i}"), ToString::to_string);
        let name = renamed(&field.attrs)?.unwrap_or(own);
        let of = &field.ty;
        parts.push(quote! {
            (#name, <#of as ::tidemill::Schema>::schema as fn(&mut ::tidemill::Definitions) -> ::std::string::String)
        });
    }
    Ok(quote! {
        known.record_named(name, &[#(#parts),*])
    })
}

/// What serde can be told to do that Avro's fields, which go by their place, cannot follow.
const MISPLACING: [&str; 6] = [
    "flatten",
    "untagged",
    "tag",
    "content",
    "skip_serializing",
    "skip_serializing_if",
];

fn refuse_misplacing(attrs: &[Attribute]) -> Result<()> {
    for meta in serde_metas(attrs)? {
        if MISPLACING.iter().any(|name| meta.path().is_ident(name)) {
            let message = "state is written field by field, which this attribute changes";
            return Err(Error::new_spanned(meta, message));
        }
    }
    Ok(())
}

fn serde_metas(attrs: &[Attribute]) -> Result<Vec<Meta>> {
    let mut metas = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        metas.extend(attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?);
    }
    Ok(metas)
}

fn has(attrs: &[Attribute], name: &str) -> Result<bool> {
    Ok(serde_metas(attrs)?
        .iter()
        .any(|meta| meta.path().is_ident(name)))
}

/// The name that `#[serde(rename = "…")]` gives.
fn renamed(attrs: &[Attribute]) -> Result<Option<String>> {
    for meta in serde_metas(attrs)? {
        if let Meta::NameValue(pair) = meta
            && pair.path.is_ident("rename")
        {
            let value = &pair.value;
            return Ok(Some(syn::parse2::<LitStr>(quote! { #value })?.value()));
        }
    }
    Ok(None)
}
