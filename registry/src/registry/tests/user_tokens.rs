//! Tests of users' tokens: names, ends, and whose they are.

use super::*;

#[tokio::test]
async fn a_token_of_a_user_ends_and_others_go_on() {
    let fixture = Fixture::new();
    let (user, first) = fixture.registry.create_user(alice(ClusterScope::All), at(0)).await.unwrap();
    let fixture = fixture.reopened().await;
    let registry = &fixture.registry;
    let day = Duration::from_secs(86_400);
    let (token, second) = registry.create_user_token(&user.name, "ci", day, at(10)).await.unwrap();
    let [first, second] = [first.expose_secret(), second.expose_secret()];
    let login = registry.authenticate(first, at(3599)).unwrap();
    assert_eq!(login.token_end(), Some(at(3600)));
    assert!(registry.current(&login, at(3599)).is_some() && registry.current(&login, at(3600)).is_none());
    let ended = registry.authenticate(first, at(3600)).unwrap_err();
    assert_eq!(ended, TokenRefusal::Expired { user: user.name.clone(), at: at(3600) });
    let login = registry.authenticate(second, at(3600)).unwrap();
    let by_certificate = Login::by_certificate(registry.user(&user.name).unwrap(), key(9));

    let again = registry.create_user_token(&user.name, "ci", day, at(11)).await;
    assert!(matches!(again, Err(UserError::TokenExists { .. })), "{again:?}");
    for (name, validity) in [("ci 2", day), ("", day), ("x", Duration::ZERO), ("x", MAX_USER_VALIDITY + day)] {
        let refused = registry.create_user_token(&user.name, name, validity, at(11)).await;
        assert!(matches!(refused, Err(UserError::TokenName { .. } | UserError::Validity)), "{refused:?}");
    }
    registry.delete_user_token(&user.name, &token.name).await.unwrap();
    assert!(registry.current(&login, at(12)).is_none() && registry.current(&by_certificate, at(12)).is_some());
    assert_eq!(registry.authenticate(second, at(12)).unwrap_err(), TokenRefusal::Unknown);
    let gone = registry.delete_user_token(&user.name, "ci").await;
    assert!(matches!(gone, Err(UserError::UnknownToken { .. })), "{gone:?}");
    // A token that has ended makes room for another of its name.
    registry.create_user_token(&user.name, "default", day, at(3600)).await.unwrap();
    assert_eq!(registry.user(&user.name).unwrap().tokens.len(), 1);

    // The heir of the name, in the same second, is somebody else.
    registry.delete_user(&user.name).await.unwrap();
    registry.create_user(alice(ClusterScope::All), at(0)).await.unwrap();
    assert!(registry.current(&by_certificate, at(12)).is_none());
}
