//! In which of a Service's EndpointSlices a Server lives. Pure.
//!
//! All endpoints of a slice share its ports and its address type, so Servers that differ in these live in different *groups* of
//! slices. The slices of a group form a binary tree, whose branches are the bits of a hash of the Server's UID. A Server lives
//! in the first slice on its path from the root that is not *closed*. The write that fills a slice also closes it, for ever, and
//! the slices below a slice are used only after it is closed.
//!
//! So two copies of this program that know nothing of each other can never put one Server into two slices. Either both choose
//! the same slice, and its `resourceVersion` lets only one of them write; or the slice further up is closed, and then nobody
//! can add to it any more. A group of N Servers has about N/100 slices; a group of up to 100 has one.

use std::net::IpAddr;

use berth_core::digest;
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};

use crate::member::{ServiceBackend, ServicePort};

/// Endpoints that fill a slice: as many as Kubernetes' own controller puts into one.
pub(crate) const MAX_ENDPOINTS: usize = 100;
/// Value of [`MANAGED_BY`] for the slices of this program.
pub(crate) const MANAGER: &str = "lb-controller.berth.dev";
/// Label for the program that manages a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label for the Service that a slice belongs to.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Annotation of a slice that is closed.
const CLOSED: &str = "berth.dev/closed";
/// Levels of the tree below its root. The tree of 100,000 Servers is about 12 levels deep, so 32 are always enough.
const MAX_DEPTH: usize = 32;

/// The slices of one Service for Servers that share their ports and address type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceGroup {
    service: String,
    ports: Vec<ServicePort>,
    address_type: &'static str,
    root: String,
}

impl SliceGroup {
    /// The group of a Server with this backend and address.
    pub(crate) fn new(backend: &ServiceBackend, address: &str) -> Self {
        let address_type = address_type(address);
        let digest = match backend.ports.as_slice() {
            [port] => digest::short(&(port.port, &port.name, address_type)),
            ports => {
                digest::short(&(ports.iter().map(|port| (port.port, &port.name)).collect::<Vec<_>>(), address_type))
            }
        };
        let root = format!("{}-{digest}", backend.name);
        Self { service: backend.name.clone(), ports: backend.ports.clone(), address_type, root }
    }

    /// Names of the slices that the Server with this UID may live in, beginning with the root.
    pub(crate) fn path(&self, uid: &str) -> impl Iterator<Item = String> + use<'_> {
        let hash = u64::from_str_radix(&digest::short(uid), 16).unwrap_or_default();
        (0..=MAX_DEPTH).map(move |depth| {
            let bits = (0..depth).map(|bit| if hash >> bit & 1 == 1 { '1' } else { '0' });
            if depth == 0 { self.root.clone() } else { format!("{}-{}", self.root, bits.collect::<String>()) }
        })
    }

    /// A slice of this group without endpoints.
    pub(crate) fn empty_slice(&self, namespace: &str, name: &str) -> EndpointSlice {
        let mut slice = EndpointSlice { address_type: self.address_type.to_owned(), ..EndpointSlice::default() };
        slice.metadata.namespace = Some(namespace.to_owned());
        slice.metadata.name = Some(name.to_owned());
        self.normalise(&mut slice);
        slice
    }

    /// Sets the labels and ports of a slice to those of this group.
    pub(crate) fn normalise(&self, slice: &mut EndpointSlice) {
        let labels = slice.metadata.labels.get_or_insert_default();
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        labels.insert(SERVICE_NAME.to_owned(), self.service.clone());
        let port = |port: &ServicePort| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(port.port),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        };
        slice.ports = Some(self.ports.iter().map(port).collect());
    }

    /// Whether the labels and ports of a slice are those of this group.
    pub(crate) fn is_normal(&self, slice: &EndpointSlice) -> bool {
        let label = |key: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
        let ports = slice.ports.as_deref().unwrap_or_default();
        label(MANAGED_BY) == Some(MANAGER)
            && label(SERVICE_NAME) == Some(&self.service)
            && ports.len() == self.ports.len()
            && ports.iter().zip(&self.ports).all(|(port, wanted)| {
                port.port == Some(wanted.port)
                    && port.name.as_deref().unwrap_or_default() == wanted.name
                    && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
                    && port.app_protocol.is_none()
            })
    }
}

/// Kubernetes refuses loopback addresses in slices of type IPv4 and IPv6. Machines have such addresses only in demonstrations and
/// tests, where nothing routes by the slice. They are stored as FQDN, which accepts a dotted address, too.
fn address_type(address: &str) -> &'static str {
    match address.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => "FQDN",
        Ok(IpAddr::V4(_)) => "IPv4",
        Ok(IpAddr::V6(_)) => "IPv6",
        Err(_) => "FQDN",
    }
}

/// Whether no endpoints may be added to the slice any more.
pub(crate) fn is_closed(slice: &EndpointSlice) -> bool {
    slice.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(CLOSED))
}

/// Closes the slice, for ever.
pub(crate) fn close(slice: &mut EndpointSlice) {
    slice
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(CLOSED.to_owned(), "full once, never added to again".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(port: i32) -> ServiceBackend {
        ServiceBackend { name: "web".into(), ports: vec![ServicePort { name: String::new(), port }], subset: None }
    }

    #[test]
    fn the_path_begins_at_the_root_and_each_slice_is_below_the_one_before() {
        let group = SliceGroup::new(&backend(8080), "10.0.0.1");
        let path: Vec<_> = group.path("uid-1").take(4).collect();
        assert_eq!(path[0], group.root);
        assert_eq!(path[2].len(), group.root.len() + 3);
        assert!(path[3].starts_with(&path[2]));
        assert_eq!(path, group.path("uid-1").take(4).collect::<Vec<_>>());
    }

    #[test]
    fn servers_are_spread_evenly_over_both_branches() {
        let group = SliceGroup::new(&backend(8080), "10.0.0.1");
        let right = (0..1000)
            .filter(|n| group.path(&format!("uid-{n}")).nth(1).is_some_and(|name| name.ends_with("-1")))
            .count();
        assert!((400..600).contains(&right), "{right} of 1000");
    }

    #[test]
    fn groups_differ_by_port_and_address_type() {
        let group = SliceGroup::new(&backend(8080), "10.0.0.1");
        assert_eq!(group, SliceGroup::new(&backend(8080), "10.0.0.2"));
        assert_ne!(group.root, SliceGroup::new(&backend(8081), "10.0.0.1").root);
        assert_ne!(group.root, SliceGroup::new(&backend(8080), "127.0.0.1").root);
        let mut two = backend(8080);
        two.ports.push(ServicePort { name: "admin".into(), port: 9000 });
        assert_ne!(group.root, SliceGroup::new(&two, "10.0.0.1").root);
        let slice = SliceGroup::new(&two, "10.0.0.1").empty_slice("ns", "s");
        assert_eq!(slice.ports.as_ref().map(Vec::len), Some(2));
        assert!(SliceGroup::new(&two, "10.0.0.1").is_normal(&slice) && !group.is_normal(&slice));
        assert_eq!(SliceGroup::new(&backend(1), "127.0.0.1").empty_slice("ns", "s").address_type, "FQDN");
        assert_eq!(SliceGroup::new(&backend(1), "fd00::1").empty_slice("ns", "s").address_type, "IPv6");
    }

    #[test]
    fn a_changed_port_or_label_is_noticed_and_repaired() {
        let group = SliceGroup::new(&backend(8080), "10.0.0.1");
        let mut slice = group.empty_slice("ns", "s");
        assert!(group.is_normal(&slice));
        slice.ports.as_mut().unwrap()[0].port = Some(1);
        assert!(!group.is_normal(&slice));
        group.normalise(&mut slice);
        assert!(group.is_normal(&slice));
        slice.metadata.labels = None;
        assert!(!group.is_normal(&slice));
    }
}
