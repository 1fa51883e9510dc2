//! Which question a request asks, from its method, path and headers, and whether it may ask it.
//!
//! All paths under `/admin/` need the token, those that do not exist as well: whoever does not
//! know it learns nothing about them.

use ledger::{CorrelationId, RangeMs};

use crate::requests::{self, Page, RequestError, Setting};

/// The header that carries the token. Case does not matter in its name.
pub const TOKEN_HEADER: &str = "X-Rinha-Token";

const ADMIN_PREFIX: &str = "/admin/";

/// A question that the processor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /payments`
    Pay,
    /// `GET /payments/service-health`
    Health,
    /// `GET /payments/{id}`, with an id only where that is one.
    Payment(Option<CorrelationId>),
    /// `GET /admin/payments-summary`, over a range or over all.
    Summary(Option<RangeMs>),
    /// `GET /admin/payments`
    List(Page),
    /// `PUT /admin/configurations/` and a setting.
    Configure(Setting),
    /// `POST /admin/purge-payments`
    Purge,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It lacks the token: `401`.
    Unauthorized,
    /// There is no such path: `404`.
    UnknownPath,
    /// The path knows another method: `405`, with its `Allow` header.
    WrongMethod {
        /// The header, name and value.
        allow: &'static str,
    },
    /// Its query is wrong: `400`.
    Query(RequestError),
}

/// Reads what a path's last part or its query adds to a question.
type Read = fn(&str) -> Result<Route, RequestError>;

/// Finds what is asked. `is_admitted` tells whether the request carries the token.
pub fn route(
    method: &str,
    target: &str,
    is_admitted: impl FnOnce() -> bool,
) -> Result<Route, Refusal> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.starts_with(ADMIN_PREFIX) && !is_admitted() {
        return Err(Refusal::Unauthorized);
    }
    let mut detail = query;
    let (path_method, allow, read): (_, _, Read) = match path {
        "/payments" => ("POST", "Allow: POST", |_| Ok(Route::Pay)),
        "/payments/service-health" => ("GET", "Allow: GET", |_| Ok(Route::Health)),
        "/admin/payments-summary" => {
            ("GET", "Allow: GET", |query| requests::summary_range(query).map(Route::Summary))
        }
        "/admin/payments" => ("GET", "Allow: GET", |query| requests::page(query).map(Route::List)),
        "/admin/configurations/token" => {
            ("PUT", "Allow: PUT", |_| Ok(Route::Configure(Setting::Token)))
        }
        "/admin/configurations/delay" => {
            ("PUT", "Allow: PUT", |_| Ok(Route::Configure(Setting::Delay)))
        }
        "/admin/configurations/failure" => {
            ("PUT", "Allow: PUT", |_| Ok(Route::Configure(Setting::Failure)))
        }
        "/admin/purge-payments" => ("POST", "Allow: POST", |_| Ok(Route::Purge)),
        _ => {
            detail = match path.strip_prefix("/payments/") {
                Some(id) if !id.is_empty() && !id.contains('/') => id,
                _ => return Err(Refusal::UnknownPath),
            };
            ("GET", "Allow: GET", |id| Ok(Route::Payment(id.parse().ok())))
        }
    };
    if method != path_method {
        return Err(Refusal::WrongMethod { allow });
    }
    read(detail).map_err(Refusal::Query)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn with_token(method: &str, target: &str) -> Result<Route, Refusal> {
        route(method, target, || true)
    }

    #[test]
    fn every_path_has_one_method() {
        let by_id = format!("/payments/{ID}");
        let second_page = Page { after: ID.parse().ok(), limit: 2 };
        for (method, target, expected) in [
            ("POST", "/payments", Route::Pay),
            ("GET", "/payments/service-health", Route::Health),
            ("GET", &by_id, Route::Payment(ID.parse().ok())),
            ("GET", "/admin/payments-summary", Route::Summary(None)),
            (
                "GET",
                "/admin/payments-summary?from=0000-01-01T00:00:00Z&to=9999-12-30T22:00:00Z",
                Route::Summary(Some(RangeMs::ALL)),
            ),
            ("GET", &format!("/admin/payments?limit=2&after={ID}"), Route::List(second_page)),
            ("PUT", "/admin/configurations/token", Route::Configure(Setting::Token)),
            ("PUT", "/admin/configurations/delay", Route::Configure(Setting::Delay)),
            ("PUT", "/admin/configurations/failure", Route::Configure(Setting::Failure)),
            ("POST", "/admin/purge-payments", Route::Purge),
        ] {
            assert_eq!(with_token(method, target), Ok(expected));
            let allow = format!("Allow: {method}");
            for wrong in ["GET", "POST", "PUT", "DELETE", "HEAD", "get"] {
                if wrong != method {
                    let refusal = with_token(wrong, target).unwrap_err();
                    assert!(
                        matches!(refusal, Refusal::WrongMethod { allow: a } if a == allow),
                        "{wrong} {target}: {refusal:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_wrong_query_is_refused_only_where_the_method_is_right() {
        for target in ["/admin/payments-summary?from=x", "/admin/payments?limit=none"] {
            let refusal = with_token("GET", target).unwrap_err();
            assert!(matches!(refusal, Refusal::Query(_)), "{refusal:?}");
            let refusal = with_token("POST", target).unwrap_err();
            assert!(matches!(refusal, Refusal::WrongMethod { .. }));
        }
    }

    #[test]
    fn a_path_that_does_not_exist_is_unknown_with_any_method() {
        for target in [
            "/",
            "/payment",
            "/payments/",
            "/payments/a/b",
            "/Payments",
            "/admin",
            "/admin/",
            "/admin/payments/",
            "/admin/configurations/fee",
            "*",
        ] {
            assert_eq!(with_token("GET", target), Err(Refusal::UnknownPath));
            assert_eq!(with_token("POST", target), Err(Refusal::UnknownPath));
        }
    }

    #[test]
    fn without_the_token_nothing_under_admin_is_answered_and_all_else_is() {
        let without_token = |method: &str, target: &str| route(method, target, || false);
        for target in [
            "/admin/payments-summary",
            "/admin/payments?limit=2",
            "/admin/configurations/token",
            "/admin/purge-payments",
            "/admin/nothing",
            "/admin/",
        ] {
            assert_eq!(without_token("GET", target), Err(Refusal::Unauthorized));
        }
        assert_eq!(without_token("POST", "/payments"), Ok(Route::Pay));
        assert_eq!(without_token("GET", "/payments/service-health"), Ok(Route::Health));
    }

    #[test]
    fn an_id_that_is_none_is_a_payment_that_does_not_exist() {
        assert_eq!(with_token("GET", "/payments/7"), Ok(Route::Payment(None)));
    }
}
