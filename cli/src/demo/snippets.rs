//! What to paste to try the demonstration's hub with one's own clients.

use std::{fmt::Write, net::SocketAddr, path::Path};

/// What the snippets are about.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) proxy: SocketAddr,
    /// Folder of the administrator's credentials.
    pub(super) admin: &'a Path,
    /// Folder of the credentials of the user who reaches every cluster.
    pub(super) credentials: &'a Path,
    /// Clusters and their services.
    pub(super) services: &'a [(String, SocketAddr)],
}

/// Ready to paste into a shell: tokens are read from their file, never shown.
pub(super) fn snippets(scene: &Scene<'_>) -> String {
    let Scene { proxy, admin, credentials, services } = scene;
    let folder = credentials.display();
    // The files written below hold the token.
    let mut text = format!("umask 077\nCREDENTIALS={folder}\nTOKEN=$(cat $CREDENTIALS/token)\n");
    text += &registry(admin);
    if let Some((cluster, service)) = services.first() {
        text += &curl(*proxy, cluster, *service);
        text += &kubectl(*proxy, cluster);
    }
    text += &prometheus(*proxy, services);
    text
}

fn registry(admin: &Path) -> String {
    let kubeconfig = admin.join("kubeconfig");
    format!(
        "\n# the registry, by kubectl alone, as its administrator\n\
         kubectl --kubeconfig {} get managedclusters,managedclustersets,csr\n",
        kubeconfig.display()
    )
}

fn curl(proxy: SocketAddr, cluster: &str, service: SocketAddr) -> String {
    let (ip, port) = (service.ip(), service.port());
    format!(
        "\n# curl: absolute form, CONNECT, SOCKS5, and TLS with a certificate; the token is in a file, not in an argument\n\
         echo \"proxy-user = \\\"{cluster}:$TOKEN\\\"\" > {cluster}.curl\n\
         curl -K {cluster}.curl -x http://{proxy} http://{service}/\n\
         curl -K {cluster}.curl -x http://{proxy} --proxytunnel http://{service}/\n\
         curl -K {cluster}.curl -x socks5h://{proxy} http://{service}/\n\
         curl -x https://{proxy} --proxy-cacert $CREDENTIALS/ca.crt --proxy-cert $CREDENTIALS/tls.crt \\\n     \
         --proxy-key $CREDENTIALS/tls.key http://{ip}.{cluster}.clusters.internal:{port}/\n\
         \n# any program that knows no proxy\n\
         cluster-proxy --credentials $CREDENTIALS port-forward -c {cluster} {ip} 3000:{port}\n"
    )
}

fn kubectl(proxy: SocketAddr, cluster: &str) -> String {
    format!(
        "\n# kubectl (these spokes have no Kubernetes; where there is one, put its CA and your user in)\n\
         cat > {cluster}.kubeconfig <<END\n\
         apiVersion: v1\n\
         kind: Config\n\
         current-context: {cluster}\n\
         contexts: [{{name: {cluster}, context: {{cluster: {cluster}, user: me}}}}]\n\
         clusters:\n\
         - name: {cluster}\n  \
           cluster:\n    \
             server: https://{cluster}.clusters.internal\n    \
             proxy-url: http://{cluster}:$TOKEN@{proxy}\n    \
             tls-server-name: kubernetes.default.svc\n    \
             certificate-authority: {cluster}-ca.crt\n\
         users: [{{name: me, user: {{tokenFile: {cluster}-token}}}}]\n\
         END\n"
    )
}

fn prometheus(proxy: SocketAddr, services: &[(String, SocketAddr)]) -> String {
    let mut text = "\n# Prometheus\ncat > prometheus.yml <<END\nscrape_configs:\n".to_owned();
    for (cluster, service) in services {
        write!(
            text,
            "- job_name: {cluster}\n  \
               proxy_url: http://{cluster}:$TOKEN@{proxy}\n  \
               static_configs: [{{targets: ['{service}']}}]\n"
        )
        .expect("writing to a String cannot fail");
    }
    text + "END\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frontend_and_every_cluster_has_its_snippet() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let services = [("c1".to_owned(), address(1)), ("c2".to_owned(), address(2))];
        let (admin, credentials) = (Path::new("/tmp/admin"), Path::new("/tmp/x"));
        let scene = Scene { proxy: address(8090), admin, credentials, services: &services };
        let text = snippets(&scene);
        for part in [
            "kubectl --kubeconfig /tmp/admin/kubeconfig get managedclusters,managedclustersets,csr\n",
            "echo \"proxy-user = \\\"c1:$TOKEN\\\"\" > c1.curl\n",
            "curl -K c1.curl -x http://127.0.0.1:8090 http://127.0.0.1:1/\n",
            "--proxytunnel",
            "socks5h://",
            "http://127.0.0.1.c1.clusters.internal:1/",
            "port-forward -c c1 127.0.0.1 3000:1\n",
            "    proxy-url: http://c1:$TOKEN@127.0.0.1:8090\n",
            "- job_name: c2\n  proxy_url: http://c2:$TOKEN@127.0.0.1:8090\n  static_configs: [{targets: ['127.0.0.1:2']}]\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
